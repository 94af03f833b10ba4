"""Load graphs that were saved as programs: TorchScript and torch.export."""
