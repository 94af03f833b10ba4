"""Serve every training: schedule, data files, processes, tables beside the paper."""
