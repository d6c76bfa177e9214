package zctrace;

/** Tells a tracer where a window begins and ends; see workloads/marker.py. */
final class Marker {
    private static final int OPTION = 0x7A637472;
    private static final int OPEN = 1;
    private static final int CLOSE = 2;
    private static final int NO_OPERATION = 0;

    private final long nonce;

    Marker(long nonce) {
        this.nonce = nonce;
    }

    /** Makes one that says nothing: what runs for the first time loads and links classes. */
    void rehearse() throws Throwable {
        Kernel.prctl(OPTION, nonce, NO_OPERATION, 0, 0);
    }

    void open(int role, int scope) throws Throwable {
        Kernel.prctl(OPTION, nonce, OPEN, role, scope);
    }

    void close(int role, int scope) throws Throwable {
        Kernel.prctl(OPTION, nonce, CLOSE, role, scope);
    }
}
