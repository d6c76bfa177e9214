package zctrace;

import java.io.BufferedReader;
import java.io.FileReader;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import sun.misc.Unsafe;

/** The process's own memory. */
final class Memory {
    private static final int MADV_POPULATE_WRITE = 23;
    private static final long LOCKED_BYTES = 32 * 1024;

    private Memory() {}

    /**
     * Gives back a mapping now, not when it is collected.
     *
     * <p>What is mapped cannot be dropped from the page cache. There must be no use afterwards.
     */
    static void unmap(ByteBuffer map) {
        try {
            Field field = Unsafe.class.getDeclaredField("theUnsafe");
            field.setAccessible(true);
            ((Unsafe) field.get(null)).invokeCleaner(map);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }

    /**
     * Makes every writable page the process's own, now.
     *
     * <p>Data of libraries and of the archive of classes is shared with files until somebody
     * writes to it, which is a page fault and a copy by the kernel. As workloads/libc.py does.
     */
    static void own() throws Throwable {
        List<String> spans = new ArrayList<>();
        try (BufferedReader maps = new BufferedReader(new FileReader("/proc/self/maps"))) {
            for (String line = maps.readLine(); line != null; line = maps.readLine()) {
                int space = line.indexOf(' ');
                if (line.startsWith("rw", space + 1) && line.charAt(space + 4) == 'p') {
                    spans.add(line.substring(0, space));
                }
            }
        }
        for (String span : spans) {
            int dash = span.indexOf('-');
            long first = Long.parseUnsignedLong(span.substring(0, dash), 16);
            long last = Long.parseUnsignedLong(span.substring(dash + 1), 16);
            if (Kernel.madvise(first, last - first, MADV_POPULATE_WRITE) != 0) {
                lock(first, last);
            }
        }
    }

    /** For kernels without that advice: locking a page that may be written makes it own. */
    private static void lock(long first, long last) throws Throwable {
        for (long address = first; address < last; address += LOCKED_BYTES) {
            long size = Math.min(LOCKED_BYTES, last - address);
            Kernel.mlock(address, size);
            Kernel.munlock(address, size);
        }
    }
}
