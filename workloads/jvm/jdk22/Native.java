package zctrace;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;

/** Functions of the C library, by the linker of JDK 22 and later. */
final class Native {
    private Native() {}

    /** One that returns an int, and takes ints and longs. */
    static MethodHandle function(String name, Class<?>... types) {
        MemoryLayout[] arguments = new MemoryLayout[types.length];
        for (int i = 0; i < types.length; i++) {
            arguments[i] =
                    types[i] == int.class ? ValueLayout.JAVA_INT : ValueLayout.JAVA_LONG;
        }
        Linker linker = Linker.nativeLinker();
        return linker.downcallHandle(
                linker.defaultLookup().find(name).get(),
                FunctionDescriptor.of(ValueLayout.JAVA_INT, arguments));
    }
}
