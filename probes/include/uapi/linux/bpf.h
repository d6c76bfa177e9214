/*
 * Left empty on purpose: BCC brings its own copy of this header (virtual_bpf.h)
 * and includes it first.
 */
