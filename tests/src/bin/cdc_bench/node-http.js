// The benchmark's peer: the write path of the service, written by hand for node:http, in memory, without durability.
//
// POST /data/:table parses the row, keeps it in a map and its event in an array, and answers the event in the service's
// shape. It prints its address and ends when its standard input does, so that it never outlives the benchmark.
'use strict';
const http = require('node:http');

const tables = new Map();
const events = [];

function refuse(response, status, error) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ error }));
}

function insert(table, text, response) {
  let row;
  try {
    row = JSON.parse(text);
  } catch {
    return refuse(response, 400, 'bad JSON');
  }
  if (row === null || typeof row !== 'object' || row.id === undefined) return refuse(response, 400, 'bad row');
  let rows = tables.get(table);
  if (rows === undefined) tables.set(table, (rows = new Map()));
  if (rows.has(row.id)) return refuse(response, 409, 'the row is there already');
  rows.set(row.id, row);
  const sequenceNumber = events.length + 1;
  const timestamp = Date.now();
  const event = {
    id: `evt_${timestamp}_${sequenceNumber.toString(36)}`,
    operation: 'INSERT',
    table,
    timestamp,
    after: row,
    metadata: { sequenceNumber, source: 'cdc-engine', schemaVersion: 1 },
  };
  events.push(event);
  const body = JSON.stringify({ success: true, event });
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

const server = http.createServer((request, response) => {
  if (request.method !== 'POST' || !request.url.startsWith('/data/')) return refuse(response, 404, 'no such path');
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => insert(request.url.slice('/data/'.length), Buffer.concat(chunks).toString(), response));
});

server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
