// Outside judges of the headers: MDN's HTTP Observatory against the example behind TLS, Google's
// CSP evaluator over the policies that it sends, and helmet's own headers for the parity test.
//
// `node judges.mjs EXAMPLE CERT KEY HELMET_JSON`, in a folder that has the judges' packages; the
// certificate is for localhost and known to NODE_EXTRA_CA_CERTS.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import { once } from "node:events";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [example, cert, key, helmetJson] = process.argv.slice(2);
const packages = path.join(process.cwd(), "node_modules");
const observatory = (file) =>
  import(pathToFileURL(path.join(packages, "@mdn/mdn-http-observatory/src", file)));
const require = createRequire(path.join(process.cwd(), "judges.mjs"));

const NEEDED = 130;
const faults = [];

// The proxy that ends TLS: both its ports are one host to the example.
let upstream;
let host;
function proxy(proto) {
  return (request, response) => {
    const headers = { ...request.headers, host, "x-forwarded-proto": proto };
    headers["x-forwarded-for"] = "203.0.113.7";
    const { method, url } = request;
    const onward = http.request({ ...upstream, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  };
}
const plain = http.createServer(proxy("http")).listen(0, "127.0.0.1");
const tls = { cert: readFileSync(cert), key: readFileSync(key) };
const secure = https.createServer(tls, proxy("https")).listen(0, "127.0.0.1");
await Promise.all([once(plain, "listening"), once(secure, "listening")]);
const ports = { httpPort: plain.address().port, httpsPort: secure.address().port };
host = `localhost:${ports.httpsPort}`;

const secret = () => `hex:${randomBytes(32).toString("hex")}`;
const server = spawn(example, {
  env: {
    APP_ENV: "production",
    API_KEYS_ENV: "judges",
    BIND_ADDR: "127.0.0.1:0",
    DATABASE_URL: "sqlite::memory:",
    JWT_SECRET: secret(),
    JWT_REFRESH_SECRET: secret(),
    PUBLIC_ORIGIN: `https://${host}`,
    TRUSTED_PROXIES: "127.0.0.1",
  },
  stdio: ["ignore", "pipe", "inherit"],
});
try {
  const [line] = await Promise.race([once(server.stdout, "data"), once(server, "exit")]);
  const address = /http:\/\/([\d.]+):(\d+)/.exec(String(line));
  if (!address) throw new Error(`the example did not start: ${line}`);
  upstream = { host: address[1], port: Number(address[2]) };

  const { retrieve } = await observatory("retriever/retriever.js");
  const { ALL_TESTS } = await observatory("constants.js");
  const grader = await observatory("grader/grader.js");
  const { MINIMUM_SCORE_FOR_EXTRA_CREDIT } = await observatory("grader/charts.js");
  const { CspEvaluator } = require("csp_evaluator/dist/evaluator.js");
  const { CspParser } = require("csp_evaluator/dist/parser.js");

  // A page, and an answer of the API to a caller that it does not know.
  for (const where of ["/", "/api/me"]) {
    const seen = await retrieve("localhost", { ...ports, path: where });
    const results = ALL_TESTS.map((test) => test(seen));
    let uncurved = 100;
    let score = 100;
    for (const { result, expectation } of results) {
      const modifier = result ? grader.getScoreModifier(result) : 0;
      score += modifier;
      uncurved += Math.min(modifier, 0);
      console.log(`  ${String(modifier).padStart(4)}  ${expectation}: ${result}`);
    }
    if (uncurved < MINIMUM_SCORE_FOR_EXTRA_CREDIT) score = uncurved;
    console.log(`observatory ${where}: ${score} ${grader.getGradeForScore(score).grade}`);
    if (score < NEEDED) faults.push(`the Observatory gives ${where} ${score} of ${NEEDED}`);

    const policy = seen.responses.auto.headers["content-security-policy"];
    const findings = new CspEvaluator(new CspParser(policy).csp).evaluate();
    console.log(`csp_evaluator ${where}: ${findings.length} findings`);
    for (const { directive, description, severity } of findings) {
      faults.push(`csp_evaluator on ${where}: ${directive} (${severity}): ${description}`);
    }
  }

  // helmet's own headers, from helmet itself.
  const sent = {};
  const answer = {
    setHeader: (name, value) => (sent[name.toLowerCase()] = value),
    removeHeader: () => {},
  };
  require("helmet")()({}, answer, (error) => {
    if (error) throw error;
  });
  writeFileSync(helmetJson, JSON.stringify(sent));
} finally {
  server.kill();
  plain.close();
  secure.close();
}
for (const fault of faults) console.error(fault);
process.exit(faults.length ? 1 : 0);
