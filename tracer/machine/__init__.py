"""Where it is measured: this host, or virtual machines."""
