//! What pingora may ask of a connection beside its bytes, and ours do not tell: they have no TLS and no
//! proxy before them, and of times and addresses they know themselves.

/// Says nothing of all that for a kind of connection.
macro_rules! untold {
    ($connection:ty) => {
        impl pingora::protocols::Ssl for $connection {}

        impl pingora::protocols::Peek for $connection {}

        impl pingora::protocols::GetTimingDigest for $connection {
            fn get_timing_digest(&self) -> Vec<Option<pingora::protocols::TimingDigest>> {
                Vec::new()
            }
        }

        impl pingora::protocols::GetProxyDigest for $connection {
            fn get_proxy_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::raw_connect::ProxyDigest>> {
                None
            }
        }

        impl pingora::protocols::GetSocketDigest for $connection {
            fn get_socket_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora::protocols::SocketDigest>> {
                None
            }
        }
    };
}

pub(crate) use untold;
