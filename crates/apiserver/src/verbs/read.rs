//! `get`: one object.

use http::{Response, StatusCode};
use toono_api::{ApiError, kinds::core::NODE};
use toono_http::Body;

use super::{Call, scale};
use crate::{encode, liveness, respond};

impl Call<'_> {
    pub(crate) fn read(&self) -> Result<Response<Body>, ApiError> {
        let target = &self.target;
        let mut entry = self.server.existing(&target.resource, target.namespace, target.name)?;
        if target.resource.is(&NODE) {
            liveness::freshen(self.server, std::slice::from_mut(&mut entry));
        }
        match target.subresource_name() {
            "scale" => {
                let object = encode::decode(&target.resource, &entry)?;
                Ok(respond::value(&scale::of(&target.resource, &object)?))
            }
            "" | "status" | "approval" | "ephemeralcontainers" | "resize" => {
                self.form()?.response(StatusCode::OK, &target.resource, &entry.value)
            }
            _ => Err(ApiError::MethodNotAllowed),
        }
    }
}
