"""What a method is and may know: layers, rows, configs, files. Imports errors alone."""
