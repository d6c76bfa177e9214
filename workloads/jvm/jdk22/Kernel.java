package zctrace;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;

/** System calls that Java has no words for, by the linker of JDK 22 and later. */
final class Kernel {
    private static final MemoryLayout INT = ValueLayout.JAVA_INT;
    private static final MemoryLayout LONG = ValueLayout.JAVA_LONG;

    private static final MethodHandle PRCTL = function("prctl", INT, LONG, LONG, LONG, LONG);
    private static final MethodHandle MADVISE = function("madvise", LONG, LONG, INT);
    private static final MethodHandle MLOCK = function("mlock", LONG, LONG);
    private static final MethodHandle MUNLOCK = function("munlock", LONG, LONG);

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

    private static MethodHandle function(String name, MemoryLayout... arguments) {
        Linker linker = Linker.nativeLinker();
        return linker.downcallHandle(
                linker.defaultLookup().find(name).get(), FunctionDescriptor.of(INT, arguments));
    }
}
