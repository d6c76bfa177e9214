package zctrace.netty;

import io.netty.channel.IoHandlerFactory;
import io.netty.channel.ManualIoEventLoop;
import io.netty.channel.epoll.EpollIoHandler;
import io.netty.channel.epoll.EpollSocketChannel;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.util.concurrent.Future;
import io.netty.util.internal.logging.InternalLoggerFactory;
import io.netty.util.internal.logging.JdkLoggerFactory;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Path;
import zctrace.Connection;
import zctrace.Library;

/** Connections of Netty, whose event loop is the thread that asks. */
public final class Netty implements Library {
    private static final String EPOLL = "/libnetty_transport_native_epoll_x86_64.so";

    private Loop nio;
    private Loop epoll;

    static {
        // One buffer in 128 is otherwise followed by a record of who has it.
        System.setProperty("io.netty.leakDetection.level", "disabled");
        // Channels have names, for which Netty looks at every network device.
        System.setProperty("io.netty.machineId", "02:00:00:00:00:00");
        InternalLoggerFactory.setDefaultFactory(JdkLoggerFactory.INSTANCE);
    }

    @Override
    public Connection connect(String kind, String host, int port) throws IOException {
        switch (kind) {
            case "nio":
                return new NettyConnection(nio(), NioSocketChannel.class, null, host, port);
            case "tls":
                return new NettyConnection(
                        nio(), NioSocketChannel.class, Tls.handler(), host, port);
            case "epoll":
                return new NettyConnection(
                        epoll(), EpollSocketChannel.class, null, host, port);
            default:
                throw new IllegalArgumentException(kind);
        }
    }

    private Loop nio() {
        if (nio == null) {
            nio = new Loop(NioIoHandler.newFactory());
        }
        return nio;
    }

    private Loop epoll() {
        if (epoll == null) {
            // Found before Netty looks for it, it is not unpacked into a folder for all.
            URI library = URI.create(Netty.class.getResource(EPOLL).toString());
            System.load(Path.of(library).toString());
            epoll = new Loop(EpollIoHandler.newFactory());
        }
        return epoll;
    }

    /** An event loop without a thread of its own. */
    static final class Loop {
        private static final long AS_LONG_AS_IT_TAKES = Long.MAX_VALUE;

        final ManualIoEventLoop events;

        Loop(IoHandlerFactory factory) {
            events = new ManualIoEventLoop(Thread.currentThread(), factory);
        }

        /** Does what there is to do until that is done. */
        void await(Future<?> done) throws IOException {
            while (!done.isDone()) {
                events.run(AS_LONG_AS_IT_TAKES);
            }
            if (!done.isSuccess()) {
                throw new IOException(done.cause());
            }
        }
    }
}
