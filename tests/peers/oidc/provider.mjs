// A certified OpenID provider with one client, and a second port on which a test has tokens made and keys changed.
//
//   node provider.mjs ISSUER CONTROL_PORT
//
// ISSUER is a URL of this machine, with a path if it has one; the provider listens on its host and port. The client is
// `agent` with the secret `secret`; its tokens are JWTs for the audience that it names as `resource`.
// On 127.0.0.1:CONTROL_PORT:
//   POST /sign     {claims, alg?, kid?, foreign?}   a token of these claims, as text: signed with the provider's key, or
//                                                   with one that it never had (`foreign`), or not at all (`alg: none`)
//   POST /rotate                                    the provider has new keys from now on, and no old ones
// Prints `ready` when both listen. Ends when its input does.

import http from "node:http";
import * as jose from "jose";
import Provider from "oidc-provider";

const issuer = new URL(process.argv[2]);
const control = Number(process.argv[3]);
const mount = issuer.pathname.replace(/\/$/, "");
const CLIENT = { client_id: "agent", client_secret: "secret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] };

let generation = 0;
let current; // { key, kid, answer }

async function rotate() {
  generation += 1;
  const { privateKey } = await jose.generateKeyPair("RS256", { extractable: true });
  const kid = `key-${generation}`;
  const jwk = { ...(await jose.exportJWK(privateKey)), kid, alg: "RS256", use: "sig" };
  const provider = new Provider(process.argv[2], {
    clients: [CLIENT],
    jwks: { keys: [jwk] },
    cookies: { keys: ["of no use here"] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "control-plane",
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => ({
          scope: "write",
          audience: resource.replace(/^urn:/, ""),
          accessTokenFormat: "jwt",
          accessTokenTTL: 300,
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
  });
  current = { key: privateKey, kid, answer: provider.callback() };
}

async function sign({ claims, alg = "RS256", kid = current.kid, foreign = false }) {
  if (alg === "none") {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    return `${part({ alg, typ: "JWT" })}.${part(claims)}.`;
  }
  const key = foreign ? (await jose.generateKeyPair(alg)).privateKey : current.key;
  return new jose.SignJWT(claims).setProtectedHeader({ alg, kid, typ: "at+jwt" }).sign(key);
}

const body = async (request) => {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : JSON.parse(text);
};

await rotate();
const provider = http.createServer((request, response) => {
  if (!request.url.startsWith(mount)) {
    response.writeHead(404).end();
    return;
  }
  // As a framework does it for what is mounted below a path.
  request.originalUrl = request.url;
  request.url = request.url.slice(mount.length) || "/";
  current.answer(request, response);
});
const controls = http.createServer(async (request, response) => {
  try {
    const asked = await body(request);
    if (request.url === "/sign") response.end(await sign(asked));
    else if (request.url === "/rotate") response.end(await rotate().then(() => current.kid));
    else response.writeHead(404).end();
  } catch (error) {
    response.writeHead(400).end(String(error));
  }
});
const listening = (server, port, host) => new Promise((done) => server.listen(port, host, done));
await listening(provider, Number(issuer.port), issuer.hostname);
await listening(controls, control, "127.0.0.1");
console.log("ready");
process.stdin.on("end", () => process.exit(0)).resume();
