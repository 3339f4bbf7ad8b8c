"""What travels to a device: files of the standard library and numpy alone, for Python 3.8 and later."""
