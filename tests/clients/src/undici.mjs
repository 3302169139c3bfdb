// Node's fetch, which is undici's.
import { openAsBlob } from "node:fs";

const form = new FormData();
form.append("note", "hi");
form.append("file", await openAsBlob(process.argv[3], { type: "image/png" }), "käse 1.png");
await fetch(process.argv[2], { method: "POST", body: form });
