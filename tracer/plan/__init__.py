"""What will be attached: the catalogue, as far as a kernel offers it."""
