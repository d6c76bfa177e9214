"""Sessions and windows, for programs that measure a part of themselves."""
