"""Real data: files a user puts into one folder, found, checked and read; nothing is downloaded."""
