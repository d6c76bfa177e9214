/*
 * The whole of "kernel headers" that the meter needs.
 *
 * BCC force-includes <linux/kconfig.h> from the folder that BCC_KERNEL_SOURCE
 * names, and refuses to compile unless CONFIG_BPF_SYSCALL is set. Nothing else of
 * the kernel's configuration matters to programs that only count.
 */
#ifndef ZCTRACE_KCONFIG_H
#define ZCTRACE_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#endif
