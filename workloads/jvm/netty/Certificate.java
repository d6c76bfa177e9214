package zctrace.netty;

import java.io.File;
import java.security.KeyStore;
import java.util.Base64;

/** Writes a key and its certificate in the form that OpenSSL reads. */
public final class Certificate {
    private static final Base64.Encoder LINES = Base64.getMimeEncoder(64, new byte[] {'\n'});

    private Certificate() {}

    /** The arguments are keytool's file, its password, and the name of the key. */
    public static void main(String[] arguments) throws Exception {
        char[] password = arguments[1].toCharArray();
        KeyStore store = KeyStore.getInstance(new File(arguments[0]), password);
        print("PRIVATE KEY", store.getKey(arguments[2], password).getEncoded());
        print("CERTIFICATE", store.getCertificate(arguments[2]).getEncoded());
    }

    private static void print(String what, byte[] encoded) {
        System.out.println("-----BEGIN " + what + "-----");
        System.out.println(LINES.encodeToString(encoded));
        System.out.println("-----END " + what + "-----");
    }
}
