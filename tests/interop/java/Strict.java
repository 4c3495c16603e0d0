import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import java.io.File;
import java.util.concurrent.TimeUnit;

/**
 * Asks a service in strict mode whether it is healthy, with stock grpc-java on grpc-netty-shaded: Strict HOST:PORT SERVICE CA [TLS_DIR]
 *
 * <p>CA is the file of those whose certificates we believe, TLS_DIR the folder of our own. Prints the health, or why there is none.
 */
public final class Strict {
  public static void main(String[] args) throws Exception {
    // Read once: what runs for longer than its certificate is valid takes an AdvancedTlsX509KeyManager of grpc-util.
    TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder().trustManager(new File(args[2]));
    if (args.length > 3) {
      credentials.keyManager(new File(args[3], "cert.pem"), new File(args[3], "key.pem"));
    }
    ManagedChannel channel =
        Grpc.newChannelBuilder(args[0], credentials.build())
            // Also the name that the server's certificate must have.
            .overrideAuthority(args[1])
            .build();
    try {
      HealthGrpc.HealthBlockingStub health = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
      System.out.println(health.check(HealthCheckRequest.getDefaultInstance()).getStatus());
    } catch (StatusRuntimeException error) {
      System.out.println(error.getStatus());
    } finally {
      channel.shutdownNow();
    }
  }
}
