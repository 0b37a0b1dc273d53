/**
 * Judges what arrived against what was committed: a process of its own, which imports nothing of the
 * library. Prints its findings as JSON; ends with 0 when all is well, with 1 when messages are lost,
 * phantom or out of order, with 2 when it cannot tell.
 *
 *     tsx test/support/verifier/main.ts --shop URL --warehouse URL --records URL [--endpoint URL --queue URL]
 *
 * It empties its own queue into a table of its own database (`--records`) first, and so can be asked
 * again. Without a queue it judges what it has.
 */
import { parseArgs } from 'node:util';
import { collect } from './collect.js';
import { findings } from './judge.js';
import { committed, arrivals, openDatabase, stored, openRecords } from './read.js';

try {
  const { values } = parseArgs({
    options: {
      shop: { type: 'string' },
      warehouse: { type: 'string' },
      records: { type: 'string' },
      endpoint: { type: 'string' },
      queue: { type: 'string' },
    },
  });
  const shop = await openDatabase('--shop', values.shop);
  const warehouse = await openDatabase('--warehouse', values.warehouse);
  const records = await openRecords('--records', values.records);
  if (values.queue !== undefined) await collect(records, values.queue, values.endpoint);

  const result = findings({
    ...(await stored(shop)),
    committed: await committed(shop),
    queue: await arrivals(records),
    consumer: await arrivals(warehouse),
  });
  await Promise.all([shop.end(), warehouse.end(), records.end()]);
  console.log(JSON.stringify(result, null, 2));
  process.exitCode = result.ok ? 0 : 1;
} catch (error) {
  console.error('the verifier cannot tell:', error);
  process.exit(2); // At once: connections that are open would keep it waiting.
}
