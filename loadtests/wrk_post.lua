-- POST one JSON body, given after `--`, and report as one line of JSON in the shape of loadtests.closedloop.Throughput.

function init(args)
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  wrk.body = args[1]
end

function done(summary, latency)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format(
    '\n{"requests":%d,"per_s":%.3f,"p50_s":%.6f,"p99_s":%.6f,"max_s":%.6f,"errors":%d}\n',
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency.max / 1e6, errors))
end
