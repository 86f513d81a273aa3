// A task in JavaScript, without Airflow's SDK for it: it speaks the protocol of Airflow's coordinators itself.
// A frame is its length in four bytes and a msgpack array of a number and a body; a log line is JSON.
import { spawn } from "node:child_process";
import net from "node:net";

const connect = (name) =>
  new Promise((resolve, reject) => {
    const [host, port] = process.argv.find((word) => word.startsWith(`--${name}=`)).slice(7).split(":");
    const socket = net.connect({ host, port: Number(port) }, () => resolve(socket));
    socket.on("error", reject);
  });
const text = (value) => Buffer.concat([Buffer.from([0xd9, Buffer.byteLength(value)]), Buffer.from(value)]);
const pack = (value) => (Array.isArray(value) ? Buffer.from([0x90]) : text(value));

const logs = await connect("logs");
const comm = await connect("comm");
const say = (event) =>
  logs.write(`${JSON.stringify({ event, level: "info", logger: "node", timestamp: new Date().toISOString() })}\n`);

// The task's name stands in the first frame as it is.
const startup = await new Promise((resolve) => comm.once("data", resolve));
if (startup.includes("sleep")) {
  process.on("SIGTERM", () => say("deaf"));
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  say(`child ${child.pid}`);
  setInterval(() => {}, 1000);
} else {
  say(`hello from node ${process.version}`);
  const body = { type: "SucceedTask", end_date: new Date().toISOString(), task_outlets: [], outlet_events: [] };
  const pairs = Object.entries(body).flatMap(([key, value]) => [text(key), pack(value)]);
  const frame = Buffer.concat([Buffer.from([0x92, 0, 0x84]), ...pairs]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(frame.length);
  comm.write(Buffer.concat([length, frame]));
  await new Promise((resolve) => comm.once("data", resolve));
  comm.end();
  logs.end();
}
