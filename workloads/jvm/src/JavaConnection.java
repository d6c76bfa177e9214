package zctrace;

import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.channels.SocketChannel;

/** A connection of one of Java's two kinds: a socket's stream, or a channel. */
final class JavaConnection implements Connection {
    final OutputStream stream;
    final SocketChannel channel;
    private final Socket socket;

    JavaConnection(boolean asChannel, String host, int port) throws IOException {
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

    @Override
    public int localPort() {
        return socket.getLocalPort();
    }

    @Override
    public Transfer prepare(String name, RandomAccessFile file, long size, long step)
            throws IOException {
        return Transfer.of(name, file, size, step, this);
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
