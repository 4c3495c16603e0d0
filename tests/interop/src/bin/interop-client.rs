//! gRPC's interop cases over a Meshwork channel: `interop-client HOST:PORT CASE` against another language's server, which is
//! found through a registry in this process, as every endpoint of a mesh is.

use std::{
    error::Error,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use meshwork::{
    Mesh,
    channel::Channel,
    contract::meshwork::registry::v1::{Instance, InstanceStatus, RegisterRequest},
};
use meshwork_interop::{
    ECHO_INITIAL, ECHO_TRAILING,
    contract::{
        BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
        StreamingOutputCallRequest, test_service_client::TestServiceClient,
        unimplemented_service_client::UnimplementedServiceClient,
    },
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Status, codec::CompressionEncoding::Gzip, metadata::MetadataValue};

/// What a case ends with if it fails: the reason, for a person.
type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// No case but those that wait on purpose takes longer.
const STUCK: Duration = Duration::from_secs(60);

/// For how long a connection stays quiet. A stock server with gRPC's default enforcement policy ends a connection on which
/// pings arrive every 10 s after some 40 s.
const QUIET: Duration = Duration::from_secs(90);

const LARGE_REQUEST: usize = 271_828;
const LARGE_RESPONSE: i32 = 314_159;
const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [i32; 4] = [31_415, 9, 2_653, 58_979];

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [server, case] = &args[..] else {
        eprintln!("usage: interop-client HOST:PORT CASE");
        return ExitCode::from(2);
    };
    match time::timeout(STUCK + QUIET, run(server, case)).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("{case}: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("{case}: did not end");
            ExitCode::FAILURE
        }
    }
}

async fn run(server: &str, case: &str) -> Outcome {
    if case == "channel_soak" {
        for _ in 0..10 {
            let peer = Peer::find(server).await?;
            large_unary(peer.client()).await?;
            peer.mesh.close().await;
        }
        return Ok(());
    }
    let peer = Peer::find(server).await?;
    let mut client = peer.client();
    match case {
        "empty_unary" => empty_unary(client).await?,
        "large_unary" => large_unary(client).await?,
        "client_compressed_unary" => client_compressed_unary(client).await?,
        "server_compressed_unary" => server_compressed_unary(client).await?,
        "client_streaming" => client_streaming(client).await?,
        "client_compressed_streaming" => client_streaming(client.send_compressed(Gzip)).await?,
        "server_streaming" => server_streaming(client).await?,
        "server_compressed_streaming" => server_streaming(client.accept_compressed(Gzip)).await?,
        "ping_pong" => ping_pong(client, Duration::ZERO).await?,
        "empty_stream" => empty_stream(client).await?,
        "custom_metadata" => custom_metadata(client).await?,
        "status_code_and_message" => status_code_and_message(client).await?,
        "special_status_message" => special_status_message(client).await?,
        "unimplemented_method" => expect_code(client.unimplemented_call(Empty {}).await, Code::Unimplemented)?,
        "unimplemented_service" => {
            let mut client = UnimplementedServiceClient::new(peer.channel.clone());
            expect_code(client.unimplemented_call(Empty {}).await, Code::Unimplemented)?;
        }
        "cancel_after_begin" => cancel_after_begin(client).await?,
        "cancel_after_first_response" => cancel_after_first_response(client).await?,
        "timeout_on_sleeping_server" => timeout_on_sleeping_server(client).await?,
        "concurrent_large_unary" => concurrent_large_unary(&client).await?,
        "rpc_soak" => {
            for _ in 0..100 {
                large_unary(client.clone()).await?;
            }
        }
        "quiet_stream" => ping_pong(client, QUIET).await?,
        "idle_connection" => {
            empty_unary(client.clone()).await?;
            time::sleep(QUIET).await;
            empty_unary(client).await?;
        }
        _ => return Err("there is no such case".into()),
    }
    peer.mesh.close().await;
    Ok(())
}

/// A server of another language, as an endpoint of a mesh.
struct Peer {
    mesh: Mesh,
    channel: Channel,
}

impl Peer {
    async fn find(server: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let address: SocketAddr = server.parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let registry = listener.local_addr()?.to_string();
        let mut config = meshwork_registry::Config::new(&registry);
        config.grace = Duration::ZERO;
        tokio::spawn(meshwork_registry::run(config, TcpListenerStream::new(listener), std::future::pending()));
        let mesh = Mesh::connect(&registry)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let instance = Instance {
            service: "interop".into(),
            instance_id: "peer".into(),
            address: address.to_string(),
            weight: 100,
            status: InstanceStatus::Serving.into(),
            ..Instance::default()
        };
        let lease = RegisterRequest {
            instance: Some(instance),
            // Longer than any case: it is never renewed.
            lease_ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
            holder: format!("interop-client-{}", started.as_nanos()),
            attempt: 1,
            ..RegisterRequest::default()
        };
        mesh.registry().register(lease).await?;
        let channel = mesh.channel("interop");
        Ok(Self { mesh, channel })
    }

    fn client(&self) -> TestServiceClient<Channel> {
        TestServiceClient::new(self.channel.clone())
    }
}

type Client = TestServiceClient<Channel>;

async fn empty_unary(mut client: Client) -> Outcome {
    client.empty_call(Empty {}).await?;
    Ok(())
}

fn payload(size: usize) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; size] })
}

fn large_request() -> SimpleRequest {
    SimpleRequest { response_size: LARGE_RESPONSE, payload: payload(LARGE_REQUEST), ..SimpleRequest::default() }
}

fn expect_size(payload: Option<&Payload>, size: i32) -> Outcome {
    let got = payload.map_or(0, |payload| payload.body.len());
    ensure!(i32::try_from(got) == Ok(size), "{got} bytes were received, not {size}");
    Ok(())
}

fn expect_code<T>(result: Result<T, Status>, code: Code) -> Outcome {
    match result {
        Err(status) if status.code() == code => Ok(()),
        Err(status) => Err(format!("{:?}, not {code:?}: {}", status.code(), status.message()).into()),
        Ok(_) => Err(format!("the call succeeded, and had to end with {code:?}").into()),
    }
}

async fn large_unary(mut client: Client) -> Outcome {
    let response = client.unary_call(large_request()).await?.into_inner();
    expect_size(response.payload.as_ref(), LARGE_RESPONSE)
}

/// Without the probe of the official case: grpc-java's server does not check what it is asked to expect.
async fn client_compressed_unary(client: Client) -> Outcome {
    let mut compressing = client.clone().send_compressed(Gzip);
    for (client, is_compressed) in [(&mut compressing, true), (&mut client.clone(), false)] {
        let request = SimpleRequest { expect_compressed: Some(BoolValue { value: is_compressed }), ..large_request() };
        let response = client.unary_call(request).await?.into_inner();
        expect_size(response.payload.as_ref(), LARGE_RESPONSE)?;
    }
    Ok(())
}

async fn server_compressed_unary(client: Client) -> Outcome {
    let mut client = client.accept_compressed(Gzip);
    for is_compressed in [true, false] {
        let request =
            SimpleRequest { response_compressed: Some(BoolValue { value: is_compressed }), ..large_request() };
        let response = client.unary_call(request).await?;
        let encoding = response.metadata().get("grpc-encoding").and_then(|value| value.to_str().ok());
        ensure!((encoding == Some("gzip")) == is_compressed, "grpc-encoding is {encoding:?}");
        expect_size(response.get_ref().payload.as_ref(), LARGE_RESPONSE)?;
    }
    Ok(())
}

async fn client_streaming(mut client: Client) -> Outcome {
    let requests = REQUESTS.map(|size| StreamingInputCallRequest { payload: payload(size), expect_compressed: None });
    let response = client.streaming_input_call(tokio_stream::iter(requests)).await?.into_inner();
    let size = response.aggregated_payload_size;
    ensure!(usize::try_from(size) == Ok(REQUESTS.iter().sum()), "the sum of the sizes is {size}");
    Ok(())
}

fn responses_of(sizes: &[i32]) -> Vec<ResponseParameters> {
    sizes.iter().map(|size| ResponseParameters { size: *size, ..ResponseParameters::default() }).collect()
}

async fn server_streaming(mut client: Client) -> Outcome {
    let request = StreamingOutputCallRequest { response_parameters: responses_of(&RESPONSES), ..Default::default() };
    let mut responses = client.streaming_output_call(request).await?.into_inner();
    for size in RESPONSES {
        let response = responses.message().await?.ok_or("the stream ended early")?;
        expect_size(response.payload.as_ref(), size)?;
    }
    ensure!(responses.message().await?.is_none(), "the stream did not end");
    Ok(())
}

fn ping(request: usize, response: i32) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: responses_of(&[response]),
        payload: payload(request),
        ..Default::default()
    }
}

/// The stream says nothing for `quiet` in its middle.
async fn ping_pong(mut client: Client, quiet: Duration) -> Outcome {
    let (requests, queue) = mpsc::channel(1);
    let mut responses = None;
    let mut queue = Some(queue);
    for (index, (request, response)) in REQUESTS.into_iter().zip(RESPONSES).enumerate() {
        if index == 2 {
            time::sleep(quiet).await;
        }
        requests.send(ping(request, response)).await?;
        if let Some(queue) = queue.take() {
            responses = Some(client.full_duplex_call(ReceiverStream::new(queue)).await?.into_inner());
        }
        let responses = responses.as_mut().ok_or("there is no stream")?;
        let received = responses.message().await?.ok_or("the stream ended early")?;
        expect_size(received.payload.as_ref(), response)?;
    }
    drop(requests);
    let mut responses = responses.ok_or("there is no stream")?;
    ensure!(responses.message().await?.is_none(), "the stream did not end");
    Ok(())
}

async fn empty_stream(mut client: Client) -> Outcome {
    let mut responses = client.full_duplex_call(tokio_stream::empty()).await?.into_inner();
    ensure!(responses.message().await?.is_none(), "there was a message");
    Ok(())
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(ECHO_INITIAL, MetadataValue::from_static("test_initial_metadata_value"));
    request.metadata_mut().insert_bin(ECHO_TRAILING, MetadataValue::from_bytes(b"\x0a\x0b\x0a\x0b\x0a\x0b"));
    request
}

async fn custom_metadata(mut client: Client) -> Outcome {
    let request = SimpleRequest { response_size: 1, payload: payload(1), ..SimpleRequest::default() };
    // tonic has a unary call's trailers in its metadata.
    let response = client.unary_call(with_metadata(request)).await?;
    expect_initial(response.metadata())?;
    expect_trailing(response.metadata())?;

    let response = client.full_duplex_call(with_metadata(tokio_stream::once(ping(1, 1)))).await?;
    expect_initial(response.metadata())?;
    let mut responses = response.into_inner();
    while responses.message().await?.is_some() {}
    expect_trailing(&responses.trailers().await?.ok_or("there are no trailers")?)
}

fn expect_initial(metadata: &tonic::metadata::MetadataMap) -> Outcome {
    let value = metadata.get(ECHO_INITIAL);
    ensure!(value.is_some_and(|value| value == "test_initial_metadata_value"), "{ECHO_INITIAL} is {value:?}");
    Ok(())
}

fn expect_trailing(metadata: &tonic::metadata::MetadataMap) -> Outcome {
    let value = metadata.get_bin(ECHO_TRAILING).and_then(|value| value.to_bytes().ok());
    ensure!(value.as_deref() == Some(b"\x0a\x0b\x0a\x0b\x0a\x0b"), "{ECHO_TRAILING} is {value:?}");
    Ok(())
}

fn expect_status<T>(result: Result<T, Status>, message: &str) -> Outcome {
    let Err(status) = result else { return Err("the call succeeded".into()) };
    ensure!(status.code() == Code::Unknown && status.message() == message, "the status is {status:?}");
    Ok(())
}

async fn status_code_and_message(mut client: Client) -> Outcome {
    let message = "test status message";
    let wanted = Some(EchoStatus { code: 2, message: message.into() });
    let request = SimpleRequest { response_status: wanted.clone(), ..SimpleRequest::default() };
    expect_status(client.unary_call(request).await, message)?;
    let request = StreamingOutputCallRequest { response_status: wanted, ..Default::default() };
    match client.full_duplex_call(tokio_stream::once(request)).await {
        Ok(response) => expect_status(response.into_inner().message().await, message),
        failed => expect_status(failed, message),
    }
}

async fn special_status_message(mut client: Client) -> Outcome {
    let message = "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n";
    let wanted = Some(EchoStatus { code: 2, message: message.into() });
    let request = SimpleRequest { response_status: wanted, ..SimpleRequest::default() };
    expect_status(client.unary_call(request).await, message)
}

/// A cancelled call lets go of its requests at once, and leaves the connection as it was.
async fn cancel_after_begin(mut client: Client) -> Outcome {
    let (requests, queue) = mpsc::channel::<StreamingInputCallRequest>(1);
    let mut calling = client.clone();
    let call = tokio::spawn(async move { calling.streaming_input_call(ReceiverStream::new(queue)).await.map(drop) });
    // It has left once the first message has been taken.
    requests.send(StreamingInputCallRequest::default()).await?;
    drop(requests.reserve().await?);
    call.abort();
    time::timeout(STUCK, requests.closed()).await?;
    client.empty_call(Empty {}).await?;
    Ok(())
}

async fn cancel_after_first_response(mut client: Client) -> Outcome {
    let (requests, queue) = mpsc::channel(1);
    requests.send(ping(27_182, 31_415)).await?;
    let mut responses = client.full_duplex_call(ReceiverStream::new(queue)).await?.into_inner();
    let response = responses.message().await?.ok_or("the stream ended early")?;
    expect_size(response.payload.as_ref(), 31_415)?;
    drop(responses);
    time::timeout(STUCK, requests.closed()).await?;
    client.empty_call(Empty {}).await?;
    Ok(())
}

async fn timeout_on_sleeping_server(mut client: Client) -> Outcome {
    let (requests, queue) = mpsc::channel(1);
    requests.send(StreamingOutputCallRequest { payload: payload(27_182), ..Default::default() }).await?;
    let mut request = Request::new(ReceiverStream::new(queue));
    request.set_timeout(Duration::from_millis(1));
    match client.full_duplex_call(request).await {
        Ok(response) => expect_code(response.into_inner().message().await, Code::DeadlineExceeded),
        failed => expect_code(failed, Code::DeadlineExceeded),
    }
}

async fn concurrent_large_unary(client: &Client) -> Outcome {
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        calls.spawn(large_unary(client.clone()));
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}
