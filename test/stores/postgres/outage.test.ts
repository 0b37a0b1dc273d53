/** What the relay engine treats as an outage of this store. */
import { beforeAll, expect, it } from 'vitest';
import { Messenger } from '../../../src/core/relay/messenger.js';
import type { MessengerEvent } from '../../../src/core/contracts/events.js';
import type { Message } from '../../../src/core/contracts/message.js';
import { createDatabase, inWorld } from './support.js';

let url: string;
beforeAll(async () => {
  url = await createDatabase(17, 'outage');
});

it.each([0, 300])(
  'counts it as an outage if the store can be read but not settle, and ends the relay after %i ms',
  (storeOutageLimit) =>
    inWorld(async (world) => {
      const { cursors } = world.names;
      await world.sql(`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN RAISE EXCEPTION 'no cursor moves today'; END $$`);
      await world.sql(`CREATE TRIGGER refuse BEFORE UPDATE ON ${cursors} FOR EACH ROW
      WHEN (OLD.high <> NEW.high OR OLD.after <> NEW.after) EXECUTE FUNCTION refuse()`);
      await world.add('1');
      const published: string[] = [];
      const publisher = { publish: ({ id }: Message) => Promise.resolve(void published.push(id)) };
      const errors: Error[] = [];
      const errorLogger = { error: (error: Error) => void errors.push(error) };
      let tries = 0;
      const onEvent = ({ type }: MessengerEvent) => void (tries += Number(type === 'lease-lost'));
      const relay = new Messenger(world.store, publisher, { storeOutageLimit, interval: 10, errorLogger, onEvent });
      await expect(relay.start()).rejects.toMatchObject({
        code: 'FATAL',
        message: expect.stringMatching(/no cursor moves today/) as string,
      });
      // It publishes with each attempt, but not for ever, and reports the outage once until it ends.
      expect(tries).toBeGreaterThan(storeOutageLimit === 0 ? 0 : 1);
      expect(published.length).toBe(tries);
      expect(errors.map(({ message }) => message)).toEqual(
        storeOutageLimit === 0 ? [] : [expect.stringMatching(/^the datastore fails: .*no cursor moves today/s)],
      );
    }, url),
);
