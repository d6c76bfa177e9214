package zctrace;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodType;
import jdk.incubator.foreign.CLinker;
import jdk.incubator.foreign.FunctionDescriptor;
import jdk.incubator.foreign.MemoryLayout;

/** Functions of the C library, by the incubating linker of JDK 17. */
final class Native {
    private Native() {}

    /** One that returns an int, and takes ints and longs. */
    static MethodHandle function(String name, Class<?>... types) {
        MemoryLayout[] arguments = new MemoryLayout[types.length];
        for (int i = 0; i < types.length; i++) {
            arguments[i] = types[i] == int.class ? CLinker.C_INT : CLinker.C_LONG;
        }
        return CLinker.getInstance().downcallHandle(
                CLinker.systemLookup().lookup(name).get(),
                MethodType.methodType(int.class, types),
                FunctionDescriptor.of(CLinker.C_INT, arguments));
    }
}
