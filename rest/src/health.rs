//! `GET /healthz` and `GET /readyz` when all is well. When it is not, they are answered with a problem such as
//! [`Problem::not_ready`](crate::Problem::not_ready).

/// Writes the answer.
pub fn write_health(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"status\":\"ok\"}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn health_is_one_word() {
        let mut out = Vec::new();
        super::write_health(&mut out);
        crate::golden::assert_golden("health.json", &out);
    }
}
