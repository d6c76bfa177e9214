"""What this kernel offers."""
