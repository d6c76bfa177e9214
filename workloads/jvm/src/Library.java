package zctrace;

import java.io.IOException;
import java.net.URL;
import java.net.URLClassLoader;

/** What makes connections by classes that are not Java's own, and not always there. */
public interface Library {
    /** One of the kinds that it knows, in the thread that will transfer over it. */
    Connection connect(String kind, String host, int port) throws IOException;

    /** The class of that name, from addresses of archives and folders. */
    static Library load(String name, String... addresses) throws Exception {
        URL[] places = new URL[addresses.length];
        for (int i = 0; i < places.length; i++) {
            places[i] = new URL(addresses[i]);
        }
        // Never closed: it is there for as long as what it has loaded.
        ClassLoader loader = new URLClassLoader(places, Library.class.getClassLoader());
        return (Library) loader.loadClass(name).getConstructor().newInstance();
    }
}
