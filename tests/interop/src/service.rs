//! gRPC's `TestService`, as its interop cases describe it.

use std::{pin::Pin, time::Duration};

use tokio::{sync::mpsc, time};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

use crate::{
    contract::{
        BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
        StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse,
        test_service_server::TestService,
    },
    frames::CompressedFlags,
};

/// Bytes of a message, either way: grpc-java's case `very_large_request` sends 10 MiB.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Responses of a stream that wait for the connection.
const QUEUE: usize = 4;

/// The service under test.
#[derive(Clone, Debug)]
pub struct Interop {
    /// By which a client sees that another process answers.
    pub server_id: String,
}

type Responses = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;

#[tonic::async_trait]
impl TestService for Interop {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(&self, request: Request<SimpleRequest>) -> Result<Response<SimpleResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        expect_compressed(&extensions, request.expect_compressed)?;
        refuse(request.response_status.as_ref())?;
        let server_id = if request.fill_server_id { self.server_id.clone() } else { String::new() };
        let mut response = Response::new(SimpleResponse { payload: Some(payload(request.response_size)?), server_id });
        if !request.response_compressed.is_some_and(|wanted| wanted.value) {
            response.disable_compression();
        }
        Ok(response)
    }

    type StreamingOutputCallStream = Responses;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Responses>, Status> {
        let request = request.into_inner();
        // Whether tonic compresses is a matter of the whole stream: all of its messages, if the client takes them.
        Ok(answer(async move |responses| send(&responses, &request.response_parameters).await))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let (_, extensions, mut requests) = request.into_parts();
        let mut size = 0;
        while let Some(request) = requests.message().await? {
            expect_compressed(&extensions, request.expect_compressed)?;
            size += request.payload.map_or(0, |payload| payload.body.len());
        }
        let aggregated_payload_size =
            i32::try_from(size).map_err(|_| Status::out_of_range("the payloads are more than 2 GiB"))?;
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    type FullDuplexCallStream = Responses;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut requests = request.into_inner();
        Ok(answer(async move |responses| {
            while let Some(request) = requests.message().await? {
                refuse(request.response_status.as_ref())?;
                send(&responses, &request.response_parameters).await?;
            }
            Ok(())
        }))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("this method is never implemented"))
    }
}

type Sender = mpsc::Sender<Result<StreamingOutputCallResponse, Status>>;

/// A stream of what `handler` sends. It ends with its error, or when the client is gone.
fn answer<H, F>(handler: H) -> Response<Responses>
where
    H: FnOnce(Sender) -> F,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (responses, queue) = mpsc::channel(QUEUE);
    let handler = handler(responses.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = handler => if let Err(status) = result {
                // Fails if the client is gone.
                drop(responses.send(Err(status)).await);
            },
            () = responses.closed() => {}
        }
    });
    Response::new(Box::pin(ReceiverStream::new(queue)))
}

async fn send(responses: &Sender, wanted: &[ResponseParameters]) -> Result<(), Status> {
    for parameters in wanted {
        let pause = u64::try_from(parameters.interval_us).unwrap_or(0);
        time::sleep(Duration::from_micros(pause)).await;
        let response = StreamingOutputCallResponse { payload: Some(payload(parameters.size)?) };
        responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the client is gone"))?;
    }
    Ok(())
}

fn payload(size: i32) -> Result<Payload, Status> {
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_MESSAGE);
    let size = size.ok_or_else(|| Status::invalid_argument(format!("a response has 0 to {MAX_MESSAGE} bytes")))?;
    Ok(Payload { r#type: 0, body: vec![0; size] })
}

/// The status that a request asks for.
fn refuse(wanted: Option<&EchoStatus>) -> Result<(), Status> {
    match wanted {
        Some(status) if status.code != 0 => Err(Status::new(Code::from_i32(status.code), &status.message)),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a message that is not compressed as its request says; call it once for each message.
fn expect_compressed(extensions: &Extensions, expected: Option<BoolValue>) -> Result<(), Status> {
    let is_compressed = extensions.get::<CompressedFlags>().and_then(CompressedFlags::next);
    match expected {
        Some(expected) if Some(expected.value) != is_compressed => {
            Err(Status::invalid_argument("the message is not compressed as the request says"))
        }
        Some(_) | None => Ok(()),
    }
}
