/*
 * Numbers that are put into a program when it is loaded, not when it is compiled, so that what
 * was compiled once serves every run, and one program every place that it is loaded for.
 *
 * A setting is an instruction that loads a constant: the mark and the setting's number, for
 * which the collector puts in the value (tracer/settings.py). The kernel's verifier knows the
 * value then, and takes away what is never reached with it.
 */
#ifndef ZCTRACE_SETTINGS_H
#define ZCTRACE_SETTINGS_H

#define SETTING(number) \
	({ \
		u64 setting; \
		asm("%0 = %1 ll" : "=r"(setting) : "i"(SETTING_MARK << 32 | (number))); \
		setting; \
	})

#endif
