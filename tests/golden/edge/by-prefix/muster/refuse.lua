-- Written by muster; a change here is undone by the next run of deploys/edge.py.
-- Over HTTP/2 HAProxy resets a stream that it answers before the request's body has come: curl then shows no answer, and
-- httpx waits for room to send the rest until its own timeout. So the rest of a refused request is read and thrown away.
local answers = {
  path = { 404, [==[{"error": {"message": "This address is none of the API that is served here.", "type": "invalid_request_error", "param": null, "code": "unknown_url"}}]==], 0 },
  key = { 401, [==[{"error": {"message": "No valid API key: send Authorization: Bearer <key>.", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}]==], 0 },
  expired = { 401, [==[{"error": {"message": "This API key has expired.", "type": "invalid_request_error", "param": null, "code": "expired_api_key"}}]==], 0 },
  size = { 413, [==[{"error": {"message": "The request body is larger than this service takes.", "type": "invalid_request_error", "param": null, "code": "request_too_large"}}]==], 0 },
  no_model = { 400, [==[{"error": {"message": "The request body is no JSON object that names a model.", "type": "invalid_request_error", "param": null, "code": "missing_model"}}]==], 0 },
  unknown_model = { 404, [==[{"error": {"message": "This model is not served here: GET /v1/models lists those.", "type": "invalid_request_error", "param": null, "code": "model_not_found"}}]==], 0 },
  model = { 403, [==[{"error": {"message": "This API key may not use this model.", "type": "invalid_request_error", "param": null, "code": "model_not_allowed"}}]==], 0 },
  rate = { 429, [==[{"error": {"message": "This API key has used its requests of this minute.", "type": "rate_limit_error", "param": null, "code": "rate_limit_exceeded"}}]==], 0 },
  concurrent = { 429, [==[{"error": {"message": "This API key has its number of requests in flight.", "type": "rate_limit_error", "param": null, "code": "too_many_requests"}}]==], 1 },
  connections = { 429, [==[{"error": {"message": "As many connections are open as may be: try again later.", "type": "rate_limit_error", "param": null, "code": "overloaded"}}]==], 5 },
  queue = { 429, [==[{"error": {"message": "As many requests wait as may: try again later.", "type": "rate_limit_error", "param": null, "code": "overloaded"}}]==], 5 },
}
local piece, longest = 65536, 64 * 1048576

core.register_service("refuse", "http", function(applet)
  local status, body, retry_after = table.unpack(answers[applet:get_var("txn.refused")])
  local left = longest
  while left > 0 do
    local got = applet:receive(piece)
    if got == nil or #got == 0 then break end
    left = left - #got
  end
  applet:set_status(status)
  applet:add_header("content-type", "application/json")
  applet:add_header("content-length", #body)
  if status == 401 then applet:add_header("www-authenticate", "Bearer") end
  if retry_after > 0 then applet:add_header("retry-after", retry_after) end
  applet:start_response()
  applet:send(body)
end)
