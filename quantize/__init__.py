"""U-YNet, its data, calibration and test with the power-of-two INT8 quantizer."""
