"""The XIR graph, the .xmodel file, targets, the compiler and inspection."""
