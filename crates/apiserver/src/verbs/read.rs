//! `get`: one object.

use http::{Response, StatusCode};
use toono_api::ApiError;
use toono_http::Body;

use super::{Call, scale};
use crate::{encode, respond};

impl Call<'_> {
    pub(crate) fn read(&self) -> Result<Response<Body>, ApiError> {
        let target = self.target;
        let entry = self.server.existing(target.resource, target.namespace, target.name)?;
        match target.subresource.map(|subresource| subresource.name) {
            None | Some("status") => {
                self.form()?.response(StatusCode::OK, target.resource, &entry.value)
            }
            Some("scale") => Ok(respond::value(&scale::of(&encode::decode(&entry)?))),
            Some(_) => Err(ApiError::MethodNotAllowed),
        }
    }
}
