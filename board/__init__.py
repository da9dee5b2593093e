"""The card and the vendor tools found on this host."""
