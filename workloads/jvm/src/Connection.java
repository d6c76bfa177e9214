package zctrace;

import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.channels.SocketChannel;

/** A connection of one of Java's two kinds: a socket's stream, or a channel. */
final class Connection implements AutoCloseable {
    final OutputStream stream;
    final SocketChannel channel;
    private final Socket socket;

    Connection(boolean asChannel, String host, int port) throws IOException {
        InetSocketAddress address = new InetSocketAddress(host, port);
        if (asChannel) {
            channel = SocketChannel.open(address);
            socket = channel.socket();
            stream = null;
        } else {
            channel = null;
            socket = new Socket();
            socket.connect(address);
            stream = socket.getOutputStream();
        }
    }

    int localPort() {
        return socket.getLocalPort();
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
