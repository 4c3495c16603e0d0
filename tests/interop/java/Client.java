import io.grpc.EquivalentAddressGroup;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.StatusOr;
import io.grpc.StatusRuntimeException;
import io.grpc.testing.integration.Messages.SimpleRequest;
import io.grpc.testing.integration.TestServiceGrpc;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Calls in a loop over several servers, with stock grpc-java: Client HOST:PORT,HOST:PORT
 *
 * <p>Prints `server ID` for each that answers for the first time and `failed: ...` for each call that fails. Ends with its stdin.
 */
public final class Client {
  public static void main(String[] args) throws Exception {
    NameResolverRegistry.getDefaultRegistry().register(new Static(args[0].split(",")));
    // Calls go to all addresses in turn, and move on when a server leaves.
    ManagedChannel channel =
        Grpc.newChannelBuilder("static:///interop", InsecureChannelCredentials.create())
            .defaultLoadBalancingPolicy("round_robin")
            .build();
    TestServiceGrpc.TestServiceBlockingStub client = TestServiceGrpc.newBlockingStub(channel);
    SimpleRequest request = SimpleRequest.newBuilder().setFillServerId(true).setResponseSize(100).build();

    AtomicBoolean stopped = new AtomicBoolean();
    AtomicLong calls = new AtomicLong();
    AtomicLong failed = new AtomicLong();
    Set<String> seen = ConcurrentHashMap.newKeySet();
    Runnable caller = () -> {
      while (!stopped.get()) {
        calls.incrementAndGet();
        try {
          // A call without a deadline may wait for ever.
          String server = client.withDeadlineAfter(10, TimeUnit.SECONDS).unaryCall(request).getServerId();
          if (seen.add(server)) {
            System.out.println("server " + server);
          }
        } catch (StatusRuntimeException error) {
          failed.incrementAndGet();
          System.out.println("failed: " + error.getStatus());
        }
      }
    };
    List<Thread> callers = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      callers.add(new Thread(caller));
      callers.get(i).start();
    }
    while (System.in.read() >= 0) {}
    stopped.set(true);
    for (Thread each : callers) {
      each.join();
    }
    System.out.println("calls " + calls + " failed " + failed);
    channel.shutdownNow();
  }

  /** Resolves every name of the scheme `static` to the same addresses. */
  private static final class Static extends NameResolverProvider {
    private final List<EquivalentAddressGroup> servers = new ArrayList<>();

    Static(String[] addresses) {
      for (String address : addresses) {
        int colon = address.lastIndexOf(':');
        int port = Integer.parseInt(address.substring(colon + 1));
        servers.add(new EquivalentAddressGroup(new InetSocketAddress(address.substring(0, colon), port)));
      }
    }

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args args) {
      return new NameResolver() {
        @Override
        public String getServiceAuthority() {
          return "interop";
        }

        @Override
        public void start(Listener2 listener) {
          listener.onResult(ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(servers)).build());
        }

        @Override
        public void shutdown() {}
      };
    }

    @Override
    protected boolean isAvailable() {
      return true;
    }

    @Override
    protected int priority() {
      return 5;
    }

    @Override
    public String getDefaultScheme() {
      return "static";
    }
  }
}
