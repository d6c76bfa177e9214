/*
 * What a BPF program is handed, as the kernel's own ABI lays it out.
 *
 * Written here rather than taken from kernel headers so that no headers are
 * needed (see ../include). Source: arch/x86/include/asm/ptrace.h and
 * include/uapi/linux/bpf_perf_event.h; unchanged since x86-64 has BPF.
 */
#ifndef ZCTRACE_REGISTERS_H
#define ZCTRACE_REGISTERS_H

#if !defined(__x86_64__) && !defined(__TARGET_ARCH_x86)
#error "zctrace knows the registers of x86-64 only"
#endif

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};

/* What a program finds that a function calls: the function's arguments, as many as it has. */
struct arguments {
	u64 di, si, dx, cx, r8, r9;
};

struct bpf_perf_event_data {
	struct pt_regs regs;
	u64 sample_period;
	u64 addr;
};

#endif
