package zctrace;

import java.lang.invoke.MethodHandle;

/** System calls that Java has no words for. */
final class Kernel {
    private static final MethodHandle PRCTL =
            Native.function("prctl", int.class, long.class, long.class, long.class, long.class);
    private static final MethodHandle MADVISE =
            Native.function("madvise", long.class, long.class, int.class);
    private static final MethodHandle MLOCK =
            Native.function("mlock", long.class, long.class);
    private static final MethodHandle MUNLOCK =
            Native.function("munlock", long.class, long.class);

    private Kernel() {}

    static int prctl(int option, long first, long second, long third, long fourth)
            throws Throwable {
        return (int) PRCTL.invokeExact(option, first, second, third, fourth);
    }

    static int madvise(long address, long size, int advice) throws Throwable {
        return (int) MADVISE.invokeExact(address, size, advice);
    }

    static int mlock(long address, long size) throws Throwable {
        return (int) MLOCK.invokeExact(address, size);
    }

    static int munlock(long address, long size) throws Throwable {
        return (int) MUNLOCK.invokeExact(address, size);
    }
}
