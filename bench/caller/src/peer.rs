//! Whose client is measured: a channel that an echo client can stand on.

use std::error::Error;

use meshwork::{Mesh, channel::Channel};
use meshwork_caller::{Load, Slice, contract::echo_service_client::EchoServiceClient, endpoint};

use crate::drive::drive;

/// A client to make.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Wanted {
    /// Meshwork's channel, with everything on
    Meshwork {
        /// The registry, http://HOST:PORT
        registry: String,
        /// The service's name in the mesh
        service: String,
        /// How many of its instances to use at most; 0: all [default: the library's]
        #[arg(long)]
        subset: Option<usize>,
        /// The folder of its certificate, for a mesh in strict mode
        #[cfg(feature = "tls")]
        #[arg(long)]
        tls_dir: Option<std::path::PathBuf>,
    },
    /// tonic's channel that balances over a list
    TonicBalance {
        /// HOST:PORT of each endpoint
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// tonic's channel to one address
    TonicChannel {
        /// HOST:PORT
        address: String,
    },
}

/// A client.
pub(crate) enum Peer {
    Meshwork(EchoServiceClient<Channel>),
    Tonic(EchoServiceClient<tonic::transport::Channel>),
}

impl Peer {
    /// Makes it, within a runtime. Does not wait for connections.
    pub(crate) fn new(wanted: &Wanted) -> Result<Self, Box<dyn Error>> {
        Ok(match wanted {
            Wanted::Meshwork {
                registry,
                service,
                subset,
                #[cfg(feature = "tls")]
                tls_dir,
            } => {
                let mesh = Mesh::builder().registries([registry]);
                #[cfg(feature = "tls")]
                let mesh = mesh.security(security(tls_dir.as_deref())?);
                let mesh = match subset {
                    Some(subset) => mesh.subset_size(*subset),
                    None => mesh,
                };
                Self::Meshwork(EchoServiceClient::new(mesh.build()?.channel(service)))
            }
            Wanted::TonicBalance { addresses } => {
                let list = addresses.iter().map(|address| endpoint(address));
                Self::Tonic(EchoServiceClient::new(tonic::transport::Channel::balance_list(list)))
            }
            Wanted::TonicChannel { address } => Self::Tonic(EchoServiceClient::new(endpoint(address).connect_lazy())),
        })
    }

    /// Calls it for a while.
    pub(crate) async fn drive(&self, load: Load) -> Slice {
        match self {
            Self::Meshwork(client) => drive(client, load).await,
            Self::Tonic(client) => drive(client, load).await,
        }
    }
}

#[cfg(feature = "tls")]
fn security(folder: Option<&std::path::Path>) -> Result<meshwork::identity::Security, Box<dyn Error>> {
    use meshwork::identity::{Identity, Security, TlsFiles};

    Ok(match folder {
        None => Security::Plain,
        Some(folder) => Security::Strict(Identity::from_files(TlsFiles::in_folder(folder))?),
    })
}
