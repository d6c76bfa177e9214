"""What happened: the values that collecting writes and analysis reads."""
