/* Recorded in each program; kernels since 5.0 do not look at it
 * (Since Linux kernel commit 6c4fc209fcf9 ("bpf: remove useless version check
 * for prog load") (in v5.0)). */
#ifndef ZCTRACE_VERSION_H
#define ZCTRACE_VERSION_H
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
