export default function Page() {
  return <p>POST an order to /api/orders.</p>;
}
