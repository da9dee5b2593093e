"""Quantizes a network by the vendor's API: calibrate, then test and export. Knows nothing of us."""

import argparse
import os

import numpy as np
import torch
from networks import Pictures, network
from pytorch_nndct.apis import torch_quantizer


def evaluate(net, loader, device):
    """Runs a data loader through the network; returns all outputs in order."""
    net.eval()
    net = net.to(device)
    collected = []
    with torch.no_grad():
        for images, _ in loader:
            answer = net(images.to(device))
            answer = answer if isinstance(answer, tuple) else (answer,)
            collected.append([part.cpu().numpy().copy() for part in answer])
    return [np.concatenate(parts) for parts in zip(*collected)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-d", "--build_dir", default="build")
    parser.add_argument("-q", "--quant_mode", choices=["calib", "test"], default="calib")
    parser.add_argument("-b", "--batchsize", type=int, default=4)
    parser.add_argument("-n", "--net", default="Classifier")
    parser.add_argument("-f", "--finetune", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    quant_model = os.path.join(args.build_dir, "quant_model")
    net = network(args.net).to(device)
    if args.quant_mode == "test":
        args.batchsize = 1
    loader = torch.utils.data.DataLoader(
        Pictures(args.net, 16), batch_size=args.batchsize, shuffle=False
    )
    dummy = torch.randn([args.batchsize, *net.shape])
    quantizer = torch_quantizer(args.quant_mode, net, (dummy), output_dir=quant_model)
    quantized = quantizer.quant_model
    if args.finetune and args.quant_mode == "calib":
        quantizer.fast_finetune(evaluate, (quantized, loader, device))
    elif args.finetune:
        quantizer.load_ft_param()
    outputs = evaluate(quantized, loader, device)
    if args.quant_mode == "calib":
        quantizer.export_quant_config()
    else:
        np.savez(os.path.join(args.build_dir, "quantized.npz"), *outputs)
        quantizer.export_xmodel(deploy_check=False, output_dir=quant_model)


if __name__ == "__main__":
    main()
