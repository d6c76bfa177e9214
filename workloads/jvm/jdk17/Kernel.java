package zctrace;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodType;
import jdk.incubator.foreign.CLinker;
import jdk.incubator.foreign.FunctionDescriptor;
import jdk.incubator.foreign.MemoryLayout;

/** System calls that Java has no words for, by the incubating linker of JDK 17. */
final class Kernel {
    private static final MemoryLayout INT = CLinker.C_INT;
    private static final MemoryLayout LONG = CLinker.C_LONG;

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
        Class<?>[] types = new Class<?>[arguments.length];
        for (int i = 0; i < types.length; i++) {
            types[i] = arguments[i] == INT ? int.class : long.class;
        }
        return CLinker.getInstance().downcallHandle(
                CLinker.systemLookup().lookup(name).get(),
                MethodType.methodType(int.class, types),
                FunctionDescriptor.of(INT, arguments));
    }
}
