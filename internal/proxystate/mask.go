package proxystate

// Masked stands in place of what nobody may read.
const Masked = "[masked]"

// mask replaces, in place, what is secret in a tree of JSON. Envoy redacts most of it itself; a file may come from anywhere.
func mask(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if secret(key) {
				v[key] = masked(value)
				continue
			}
			mask(value)
		}
	case []any:
		for _, e := range v {
			mask(e)
		}
	}
}

// secret says whether a field of Envoy's configuration holds a secret.
func secret(field string) bool {
	switch field {
	case "private_key", "private_key_provider", "pkcs12", "password", "session_ticket_keys", "generic_secret", "inline_password",
		"auth_username", "auth_password", "client_secret", "hmac_secret", "token_secret", "access_token", "api_key", "jwt_payload_in_metadata_secret":
		return true
	}
	return false
}

// masked keeps what says where a secret comes from, and hides what it is.
func masked(v any) any {
	if from, ok := v.(map[string]any); ok {
		out := map[string]any{}
		for key, value := range from {
			switch key {
			case "filename", "environment_variable", "watched_directory", "name", "sds_config":
				out[key] = value
			default:
				out[key] = Masked
			}
		}
		return out
	}
	return Masked
}
